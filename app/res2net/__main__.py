"""`python -m res2net`: the same command as `res2net`."""

from res2net.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
