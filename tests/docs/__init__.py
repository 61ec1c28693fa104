"""The examples of README.md and docs/ run, and what the pages list is compared with the code."""
