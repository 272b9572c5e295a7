"""One module a verb of the command line. They import the library inside their functions, so that
`simprompt --help` does not wait for torch."""
