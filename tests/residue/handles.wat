;; A command that fails unless its first handle is the first one that there is, and takes hundreds that it never gives back.
(component
  (import "wasi:io/streams@0.2.0" (instance $streams (export "output-stream" (type (sub resource)))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $of-streams))
    (export "output-stream" (type $mine (eq $of-streams)))
    (export "get-stdout" (func (result (own $mine))))))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core module $code
    (import "host" "get" (func $get (result i32)))
    (func (export "run") (result i32) (local $left i32)
      (if (i32.ne (call $get) (i32.const 1)) (then (return (i32.const 1))))
      (local.set $left (i32.const 500))
      (loop $next
        (drop (call $get))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $next (local.get $left)))
      (i32.const 0)))
  (core instance $code (instantiate $code (with "host" (instance (export "get" (func $get))))))
  (type $result (result))
  (func $run (result $result) (canon lift (core func $code "run")))
  (instance $export (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $export)))
