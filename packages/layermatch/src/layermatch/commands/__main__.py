"""`python -m layermatch.commands`, which is how `torchrun -m` and `accelerate launch -m` start the command line."""

from layermatch.commands import run

if __name__ == "__main__":
    run()
