"""The sandbox: what a program has in it, and the layers that hold it.

`sandbox` describes one; `launch` starts a program in it; `layout` says what of the machine it shows. What a layer is
made of: `namespaces` and `newroot`, `landlock`, `seccomp`, `privileges`, `resources` and `cgroup`, `terminal`; `layers`
puts them on in their order. The client library (what `import sandboxed` loads) never imports this package.
"""
