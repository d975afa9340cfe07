// BullMQ, a job queue that lives on scripts, lists, sorted sets and streams: jobs are added at one node
// and worked off at the other.
import { Queue, QueueEvents, Worker } from 'bullmq'
import { assert, check, eventually, nodes } from './check.js'

const JOBS = 200
const [here, there] = nodes
const name = 'mail'
const queue = new Queue(name, { connection: here })
// QueueEvents reads on from the last id it saw, which passes over what comes late from another region
// (docs/SEMANTICS.md, Streams): it hears all of a worker at the worker's node.
const events = new QueueEvents(name, { connection: there })
await events.waitUntilReady()

const heard = { completed: new Set(), failed: new Set() }
events.on('completed', ({ jobId }) => heard.completed.add(jobId))
events.on('failed', ({ jobId }) => heard.failed.add(jobId))

const runs = new Map()
const worker = new Worker(
  name,
  async (job) => {
    runs.set(job.name, (runs.get(job.name) ?? 0) + 1)
    if (job.name === 'flaky' && job.attemptsMade === 0) throw new Error('the first time it fails')
    if (job.name === 'hopeless') throw new Error('it always fails')
    return job.data.n * 2
  },
  { connection: there, concurrency: 8 },
)
await worker.waitUntilReady()

await check(`${JOBS} jobs added at one node run at the other, once each`, async () => {
  await queue.addBulk(Array.from({ length: JOBS }, (_, n) => ({ name: `job${n}`, data: { n } })))
  await eventually(JOBS, async () => (await queue.getJobCounts('completed')).completed)
  for (let n = 0; n < JOBS; n++) assert.equal(runs.get(`job${n}`), 1)
  const done = await queue.getCompleted(0, -1)
  assert.deepEqual(new Set(done.map((j) => j.returnvalue)), new Set(Array.from({ length: JOBS }, (_, n) => n * 2)))
  await eventually(JOBS, () => heard.completed.size)
})

await check('retries, delays and priorities', async () => {
  await queue.add('flaky', { n: 1 }, { attempts: 3, backoff: 50 })
  await queue.add('hopeless', { n: 1 }, { attempts: 2 })
  await queue.add('later', { n: 1 }, { delay: 300 })
  await queue.add('urgent', { n: 1 }, { priority: 1 })
  await eventually({ completed: JOBS + 3, failed: 1, waiting: 0, active: 0, delayed: 0, prioritized: 0 }, () =>
    queue.getJobCounts('completed', 'failed', 'waiting', 'active', 'delayed', 'prioritized'),
  )
  assert.deepEqual([runs.get('flaky'), runs.get('hopeless'), runs.get('later'), runs.get('urgent')], [2, 2, 1, 1])
  await eventually(1, () => heard.failed.size)
})

await check('both nodes tell the same of the queue', async () => {
  const other = new Queue(name, { connection: there })
  const [a, b] = await Promise.all([queue.getJobCounts(), other.getJobCounts()])
  assert.deepEqual(a, b)
  await other.close()
})

await worker.close()
await events.close()
await queue.close()
