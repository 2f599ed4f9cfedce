"""The root of a cluster: lays a model out over the nodes, hands out weights, turns text into tokens."""
