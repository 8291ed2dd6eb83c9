"""What people look at: one intermediate document, lowered to a terminal."""
