"""Backup, check and recovery, on real files with real damage."""
