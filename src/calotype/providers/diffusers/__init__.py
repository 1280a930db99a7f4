"""Pictures drawn by this machine itself, with open weights and the diffusers library."""
