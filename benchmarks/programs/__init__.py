"""The programs that are measured, each in processes of its own."""
