package catalog

import "strings"

// Names of the databases every server has.
const (
	InformationSchema = "information_schema"
	PerformanceSchema = "performance_schema"
	MySQL             = "mysql"
)

// systemDBs exist in every snapshot and cannot be created or dropped.
var systemDBs = []string{InformationSchema, MySQL, PerformanceSchema}

// IsSystemDB says whether name is one of the databases that belong to the server, in any letter case for the schemas
// whose names MySQL treats so.
func IsSystemDB(name string) bool { return name == MySQL || canonicalSystemDB(name) != "" }

func canonicalSystemDB(name string) string {
	switch {
	case strings.EqualFold(name, InformationSchema):
		return InformationSchema
	case strings.EqualFold(name, PerformanceSchema):
		return PerformanceSchema
	}
	return ""
}

// canonicalSystemTable is the stored spelling of a system table: upper case in information_schema, lower case elsewhere.
func canonicalSystemTable(db, table string) string {
	if db == InformationSchema {
		return strings.ToUpper(table)
	}
	return strings.ToLower(table)
}
