"""`python -m pretrain`."""

from pretrain.run import main

main()
