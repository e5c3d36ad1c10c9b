"""The subcommands of the privileged side. Each has main(arguments) → exit status."""
