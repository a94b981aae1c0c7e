"""Periodic tasks that prove who scheduled them, and two tasks to run by hand."""
