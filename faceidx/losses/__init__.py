"""Classification heads and auxiliary losses; `registry` is the one door to them."""
