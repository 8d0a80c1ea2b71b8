"""`/annotate/`: the page on which people work in sessions."""
