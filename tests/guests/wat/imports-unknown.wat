;; A command that imports an interface which no host provides.
(component
  (import "test:missing/thing@1.0.0" (instance $thing (export "go" (func))))
  (core func $go (canon lower (func $thing "go")))
  (core module $code
    (import "thing" "go" (func $go))
    (func (export "run") (result i32) call $go i32.const 0))
  (core instance $code (instantiate $code (with "thing" (instance (export "go" (func $go))))))
  (func $run (result (result)) (canon lift (core func $code "run")))
  (instance $export (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $export)))
