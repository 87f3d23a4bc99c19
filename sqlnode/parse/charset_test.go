package parse

import "testing"

// TestCharsetNames: names clients write in DDL must get past the grammar.
func TestCharsetNames(t *testing.T) {
	for _, cs := range []string{"utf8mb4", "utf8", "utf8mb3", "latin1", "ascii", "binary", "gbk"} {
		if _, err := New().Parse("create table t (a varchar(3) character set "+cs+") default charset="+cs, 0, 0); err != nil {
			t.Errorf("%s: %v", cs, err)
		}
	}
	for _, c := range []string{"utf8mb4_0900_ai_ci", "utf8mb4_general_ci", "utf8mb4_bin", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci", "utf8mb4_0900_bin", "utf8mb4_0900_as_cs", "utf8_general_ci", "utf8mb3_general_ci", "latin1_swedish_ci", "utf8mb4_0900_as_ci"} {
		if _, err := New().Parse("create table t (a int) collate "+c, 0, 0); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
}
