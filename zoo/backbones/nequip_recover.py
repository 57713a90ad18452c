def recovered_config(model, source):
    raise RuntimeError
