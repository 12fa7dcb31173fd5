"""Looking inside a net: activations, feature maps, filters, and their pictures."""
