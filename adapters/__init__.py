"""Parameter-efficient adapters on any PyTorch model: weight blocks, methods, stacks and files.

The pieces: `adapters.blocks.find_blocks` accounts for a model's weights, `adapters.method.create_method` gives a method by name,
`adapters.stack.AdapterStack` puts adapters on a model, `adapters.state` writes and reads adapter files. Nothing is imported here, so that
``import adapters`` costs nothing.
"""
