"""Applications on the framework: each is a Handler or a set of them."""
