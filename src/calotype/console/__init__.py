"""The web console: pages rendered here over the same services as the API's, at ``/console``."""
