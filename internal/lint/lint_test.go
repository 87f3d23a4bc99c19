package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cairndb/cairn/"

// door says what a package under the prefix pkg may import of ours: any path
// under one of the prefixes may.
type door struct {
	pkg  string
	may  []string
	note string
}

// doors: the first row that matches a package decides.
var doors = []door{
	{"proto/", []string{"proto/"}, "messages know nothing of ours"},
	{"internal/", []string{"internal/", "proto/"}, "shared code knows no role"},
	{"pd", []string{"pd", "internal/", "proto/"}, "pd knows no other role"},
	{"kvnode", []string{"kvnode", "pd/pdclient", "internal/", "proto/"}, "pd only by its door"},
	{"sqlnode/wire", []string{"internal/", "proto/"}, "wire knows no session"},
	{"sqlnode", []string{"sqlnode", "kvnode/kvclient", "pd/pdclient", "internal/", "proto/"}, "kv and pd only by their doors"},
}

// floors: a package may import only packages on lower floors of its group.
// Packages that are not named are not restricted by floors.
var floors = map[string][][]string{
	"internal/": {
		{"sqlerr", "charset", "decimal", "codec", "certs", "obs", "invariant", "lint"},
		{"types", "rpc"},
		{"chunk", "keys", "rowcodec"},
		{"expr"},
		{"vexec"},
	},
	"kvnode/": {
		{"engine", "raftlog", "kvclient", "rafttransport", "deadlock"},
		{"mvcc"},
		{"txncmd", "replica", "cop", "gc"},
		{"store", "kvrpc"},
	},
	"sqlnode/": {
		{"parse", "sysvar", "wire"},
		{"catalog", "privilege"},
		{"table", "plan", "stats", "distscan", "namedlock"},
		{"binder", "ddl", "sysview", "admin"},
		{"optimizer"},
		{"exec"},
		{"session"},
	},
}

// sameFloor lists imports inside one floor that are meant.
var sameFloor = map[string][]string{
	"internal/rowcodec": {"internal/chunk"},
	"internal/decimal":  {"internal/codec"},
	"kvnode/raftlog":    {"kvnode/engine"}, // both are Pebble: its logger and metrics
	"kvnode/store":      {"kvnode/kvrpc"},
	"sqlnode/distscan":  {"sqlnode/table", "sqlnode/plan"},
	"sqlnode/table":     {"sqlnode/plan"},
}

// oneRole lists packages of internal/ that only one role reaches today, with
// the reason they are shared all the same.
var oneRole = map[string]string{
	"chunk":    "the coprocessor answers in batches",
	"rowcodec": "the coprocessor decodes rows",
	"expr":     "the coprocessor filters",
	"vexec":    "the coprocessor aggregates",
	"types":    "the coprocessor evaluates",
	"decimal":  "the coprocessor evaluates",
	"charset":  "the coprocessor compares",
	"sqlerr":   "the coprocessor warns",
	"codec":    "keys are decoded on both sides",
	"keys":     "keys are decoded on both sides",
	"lint":     "tests only",
	"certs":    "every listener uses it",
}

var banned = []string{"util", "utils", "common", "helper", "helpers", "base", "misc"}

type pkg struct {
	ImportPath, Name, Dir string
	Imports               []string
	GoFiles               []string
}

func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,Imports,GoFiles", module+"...")
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			pkgs = append(pkgs, p)
		}
	}
}

func ours(p pkg) []string {
	var out []string
	for _, imp := range p.Imports {
		if rest, ok := strings.CutPrefix(imp, module); ok {
			out = append(out, rest)
		}
	}
	return out
}

func TestDoors(t *testing.T) {
	for _, p := range packages(t) {
		i := slices.IndexFunc(doors, func(d door) bool { return under(p.path(), d.pkg) })
		if i < 0 {
			continue
		}
		for _, imp := range ours(p) {
			if !slices.ContainsFunc(doors[i].may, func(prefix string) bool { return under(imp, prefix) }) {
				t.Errorf("%s imports %s: %s", p.path(), imp, doors[i].note)
			}
		}
	}
}

// under reports whether path is prefix or lies below it.
func under(path, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func floorOf(path string) (group string, floor int, ok bool) {
	for g, levels := range floors {
		name, found := strings.CutPrefix(path, g)
		if !found {
			continue
		}
		for i, level := range levels {
			if slices.Contains(level, name) {
				return g, i, true
			}
		}
	}
	return "", 0, false
}

func TestFloors(t *testing.T) {
	for _, p := range packages(t) {
		group, floor, ok := floorOf(p.path())
		if !ok {
			continue
		}
		for _, imp := range ours(p) {
			g, f, ok := floorOf(imp)
			if !ok || g != group || f < floor {
				continue
			}
			if f == floor && slices.Contains(sameFloor[p.path()], imp) {
				continue
			}
			t.Errorf("%s (floor %d) imports %s (floor %d)", p.path(), floor, imp, f)
		}
	}
}

func TestPackageNamesAreUniqueAndMeaningful(t *testing.T) {
	seen := map[string]string{}
	for _, p := range packages(t) {
		if p.Name == "main" {
			continue
		}
		if other, dup := seen[p.Name]; dup {
			t.Errorf("packages %s and %s are both named %s", other, p.path(), p.Name)
		}
		seen[p.Name] = p.path()
		if slices.Contains(banned, p.Name) {
			t.Errorf("%s: a package named %s says nothing", p.path(), p.Name)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range packages(t) {
		if under(p.path(), "proto") {
			continue
		}
		documented := false
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc != nil
		}
		if !documented {
			t.Errorf("package %s has no comment", p.path())
		}
	}
}

func TestInternalPackagesAreShared(t *testing.T) {
	direct := map[string]map[string]bool{} // package -> roles that reach it
	byPath := map[string]pkg{}
	for _, p := range packages(t) {
		byPath[p.path()] = p
	}
	var mark func(path, role string)
	mark = func(path, role string) {
		for _, imp := range ours(byPath[path]) {
			if !strings.HasPrefix(imp, "internal/") {
				continue
			}
			if direct[imp] == nil {
				direct[imp] = map[string]bool{}
			}
			if !direct[imp][role] {
				direct[imp][role] = true
				mark(imp, role)
			}
		}
	}
	for path := range byPath {
		role, _, _ := strings.Cut(path, "/")
		if role != "internal" && role != "proto" {
			mark(path, role)
		}
	}
	for path := range byPath {
		name, ok := strings.CutPrefix(path, "internal/")
		if !ok || oneRole[name] != "" {
			continue
		}
		if len(direct[path]) < 2 {
			t.Errorf("%s is reached by %d role(s): move it to its one user", path, len(direct[path]))
		}
	}
}

func TestGofmt(t *testing.T) {
	cmd := exec.Command("gofmt", "-l", "cmd", "internal", "kvnode", "pd", "sqlnode", "test")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("not formatted:\n%s", out)
	}
}

// function is a function and its length in lines.
type function struct {
	where string
	lines int
}

// TestLongestFunctions prints the ten longest functions; it fails above the limit.
func TestLongestFunctions(t *testing.T) {
	const limit = 110
	var all []function
	for _, p := range packages(t) {
		if under(p.path(), "proto") {
			continue
		}
		for _, name := range p.GoFiles {
			all = append(all, functionsOf(t, p, name)...)
		}
	}
	slices.SortFunc(all, func(a, b function) int { return b.lines - a.lines })
	for i, f := range all {
		if i < 10 {
			t.Logf("%4d lines  %s", f.lines, f.where)
		}
		if f.lines > limit {
			t.Errorf("%s has %d lines, more than %d", f.where, f.lines, limit)
		}
	}
}

func functionsOf(t *testing.T, p pkg, name string) (out []function) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		if fd, ok := d.(*ast.FuncDecl); ok {
			lines := fset.Position(fd.End()).Line - fset.Position(fd.Pos()).Line + 1
			out = append(out, function{fmt.Sprintf("%s/%s %s", p.path(), name, fd.Name.Name), lines})
		}
	}
	return out
}
