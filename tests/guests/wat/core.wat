;; A core module without an export: neither a component nor a WASI 0.1 command.
(module)
