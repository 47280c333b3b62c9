"""Speed and memory as ratios within one run. Never a test: `make bench` prints them."""
