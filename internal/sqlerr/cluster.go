package sqlerr

// Error numbers for what MySQL cannot meet, because it is one machine: those that
// TiDB gives, which the tools and people around it know.
const (
	ErrAsOf                     = 8135
	ErrInvalidSplitRegionRanges = 8212
	ErrDataInconsistent         = 8223
	ErrResultUndetermined       = 8501
	ErrPDServerTimeout          = 9001
	ErrServerIsBusy             = 9003
	ErrRegionUnavailable        = 9005
	ErrGCTooEarly               = 9006
)

// Numbers of our own, beyond those of TiDB.
const (
	ErrReplicasDiffer      = 9801
	ErrReplicasNotCompared = 9802
	ErrStoreNotAsked       = 9803
)

// messagesCluster holds state and text of the numbers from 8000, sorted by number.
var messagesCluster = []message{
	{ErrAsOf, "HY000", "invalid as of timestamp: %s"},
	{ErrInvalidSplitRegionRanges, "HY000", "Failed to split region ranges: %s"},
	{ErrDataInconsistent, "HY000", "data inconsistency in table: %s, index: %s, handle: %s, index-values:%s != record-values:%s"},
	{ErrResultUndetermined, "HY000", "execution result undetermined"},
	{ErrPDServerTimeout, "HY000", "PD server timeout"},
	{ErrServerIsBusy, "HY000", "KV server is busy"},
	{ErrRegionUnavailable, "HY000", "Region is unavailable"},
	{ErrGCTooEarly, "HY000", "GC life time is shorter than transaction duration, transaction starts at %s, GC safe point is %s"},
	{ErrReplicasDiffer, "HY000", "replicas of table '%s' differ: %s"},
	{ErrReplicasNotCompared, "HY000", "the replicas of table '%s' could not be compared: %s"},
	{ErrStoreNotAsked, "HY000", "store %d could not be asked: %s"},
}
