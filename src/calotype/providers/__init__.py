"""Upstream protocols: one file each behind one port."""
