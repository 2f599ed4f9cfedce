"""What a worker tells other programs about itself while it runs."""
