;; A clock of WASI 0.3 whose instances take no ticks from their start on: the start function says so.
(component
  (import "wasmhost:clock/types@0.1.0" (instance $types
    (type $fields (record (field "schedule" string) (field "nominal-ms" u64) (field "manual" bool)))
    (export "tick" (type (eq $fields)))))
  (alias export $types "tick" (type $tick))
  (core module $memory
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $memory (instantiate $memory))
  (core func $full (canon backpressure.inc))
  (core func $done (canon task.return (result (result (error string))) (memory $memory "memory")))
  (core module $code
    (import "host" "full" (func $full))
    (import "host" "done" (func $done (param i32 i32 i32)))
    (start $full)
    (func (export "handle") (param i32 i32 i64 i32) (result i32)
      (call $done (i32.const 0) (i32.const 0) (i32.const 0))
      ;; The task is over.
      (i32.const 0))
    (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
  (core instance $code (instantiate $code
    (with "host" (instance (export "full" (func $full)) (export "done" (func $done))))))
  (func $handle async (param "tick" $tick) (result (result (error string)))
    (canon lift (core func $code "handle") async (callback (func $code "callback"))
      (memory $memory "memory") (realloc (func $memory "realloc"))))
  (instance $export (export "handle" (func $handle)))
  (export "wasmhost:clock/async-handler@0.1.0" (instance $export)))
