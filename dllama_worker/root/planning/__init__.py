"""What a cluster would need and do, worked out from the same configurations that its nodes would be sent."""
