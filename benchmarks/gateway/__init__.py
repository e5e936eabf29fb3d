"""What a gateway costs, and what becomes of streams when workers die."""
