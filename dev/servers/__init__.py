"""What `dev/services` is made of: four servers, where their files lie, and the two ways to run them."""
