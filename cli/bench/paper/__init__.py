"""`mpserve bench paper`: the experiments of MegaPipe, Fastsocket and mTCP again, on this machine, and one page of them."""
