;; An http component that never gets ready: its start function traps.
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "response-outparam" (type $response-outparam))
  (core module $code
    (func $start unreachable)
    (start $start)
    (func (export "handle") (param i32 i32)))
  (core instance $code (instantiate $code))
  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $code "handle")))
  ;; An interface that takes imported resources is exported by a component of its own.
  (component $export
    (import "incoming-request" (type $incoming-request (sub resource)))
    (import "response-outparam" (type $response-outparam (sub resource)))
    (import "handle"
      (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))))
    (export "handle" (func $handle)))
  (instance $export (instantiate $export
    (with "incoming-request" (type $incoming-request))
    (with "response-outparam" (type $response-outparam))
    (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $export)))
