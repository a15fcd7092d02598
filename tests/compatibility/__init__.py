"""Files written by 0.1.0 stay readable and give the same numbers."""
