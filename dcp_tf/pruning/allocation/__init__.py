"""How many channels each group keeps, found by measuring what each group may lose."""
