// Package lint tests the shape of the code: who may import whom, that package
// names are unique and documented, that shared packages are shared. It has no
// code of its own; its tests are the doors and floors of ARCHITECTURE.md.
package lint
