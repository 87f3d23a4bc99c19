// Package deadlock finds transactions that wait for each other's locks in a circle,
// on whatever stores they wait, and keeps a history of those found.
//
// Every store has a Detector, which is told of each wait when it begins and when it
// ends. One of them has the graph of all waits, the detector: that of the store that
// leads the region with the smallest key, of which there is always one. The others keep
// a stream to it:
//
//	Wait --> waits of this store --stream--> finder (on the detector)
//	  ^                                         | a wait closes a cycle
//	  |                                         | question to every other store in it
//	  |        <------------------ question ----+
//	  |        --- all that ended, answer ----->+
//	  +------- found ---------------------------+ all answered, cycle still there
//
// # No deadlock that is none
//
// What the detector knows is old by the time of a message: a wait that has ended, because
// its time was over or because a statement gave its locks back, is still in the graph. Two
// such moments make a cycle that never was. So before a deadlock is told, every other store
// of the cycle is asked a question, which it answers after it has told of everything
// that has ended. A cycle that survives the answers was whole at the moment it was found.
// The wait that closed it is the one to be told; that it runs still is seen when
// the news arrive.
//
// # No deadlock that stays
//
// A wait that begins is searched from; so a cycle is found when the last of its waits
// arrives. What was found and refuted is searched again, because one wait can close several
// cycles. When the detector moves, or a stream breaks, its graph is forgotten, and every
// store tells of all waits that run to the next one. The graph has no timers: a wait
// is in it as long as the stream that brought it lives and has not said that it ended, and a
// stream lives as long as something is heard on it.
//
// # Who is told
//
// The transaction whose wait closed the cycle: it has just begun to wait, so that it is
// the cheapest to find and, most often, has done the least.
//
// Detector.mu is a leaf. graph and finder are pure: no goroutine, no clock.
package deadlock
