"""What the scenarios share: processes, alternating rounds, statistics, tables."""
