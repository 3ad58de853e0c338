"""What several cores cost and bring: cycles a request, accepting, connections out, rebalancing. `mpserve bench cores`."""
