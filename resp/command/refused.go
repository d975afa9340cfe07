package command

// Why commands are refused. A reason that begins with "ERR " is Redis's own
// error.
const (
	refusedMigrate     = "a key belongs to every node of the cluster: copy it to another Redis by DUMP and RESTORE"
	refusedReplication = "the node replicates in its own way; see MEET and REPLICAS"
	refusedRewrite     = "the configuration file is the operator's: change it there"
	refusedModules     = "what a module wrote would be in no log and at no other node"
	refusedCluster     = "ERR This instance has cluster support disabled"
)
