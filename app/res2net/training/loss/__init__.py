"""What training minimises: losses, mixed images and their targets, a teacher's outputs."""
