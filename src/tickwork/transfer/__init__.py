"""Lifetimes as files: what one installation recorded, carried to another one, whichever adapters either has.

`exporting` writes a file, `reading` proves one before anything of it is believed, `importing` puts it into a store.
`lines` is the form of the file; docs/transfer.md tells it to people.
"""
