;; A component that exports nothing: no trigger can call it.
(component)
