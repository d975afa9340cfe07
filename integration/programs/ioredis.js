// ioredis: pipelines, custom commands by EVALSHA, streams with groups, scanning, pub/sub.
import { Redis } from 'ioredis'
import { assert, check, eventually, nodes } from './check.js'

const [a, b] = nodes.map((n) => new Redis({ ...n, lazyConnect: false }))
const key = (s) => `ioredis:${s}`

await check('pipelines answer in order', async () => {
  const p = a.pipeline()
  for (let i = 0; i < 500; i++) p.incr(key('n')).set(key(`k${i}`), i).get(key(`k${i}`))
  const replies = await p.exec()
  replies.forEach(([error, reply], i) => {
    assert.equal(error, null)
    assert.equal(reply, [Math.floor(i / 3) + 1, 'OK', String(Math.floor(i / 3))][i % 3])
  })
  await eventually('500', () => b.get(key('n')))
})

await check('a defined command runs by its hash at both nodes', async () => {
  for (const n of [a, b]) {
    n.defineCommand('claim', {
      numberOfKeys: 1,
      lua: `local n = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
            redis.call('ZADD', KEYS[1] .. ':z', n, ARGV[1])
            return cjson.encode({name = ARGV[1], n = n})`,
    })
  }
  assert.deepEqual(JSON.parse(await a.claim(key('h'), 'x')), { name: 'x', n: 1 })
  await eventually('1', () => b.hget(key('h'), 'x'))
  assert.deepEqual(JSON.parse(await b.claim(key('h'), 'x')), { name: 'x', n: 2 })
  await eventually(['x', '2'], () => a.zrange(key('h:z'), 0, -1, 'WITHSCORES'))
})

await check('a group made here reads there what is added here', async () => {
  await a.xgroup('CREATE', key('stream'), 'workers', '$', 'MKSTREAM')
  await eventually(1, () => b.exists(key('stream')))
  const waiting = b.duplicate()
  const got = waiting.xreadgroup('GROUP', 'workers', 'w1', 'COUNT', 1, 'BLOCK', 20_000, 'STREAMS', key('stream'), '>')
  await new Promise((r) => setTimeout(r, 100))
  const id = await a.xadd(key('stream'), '*', 'job', '1')
  assert.deepEqual(await got, [[key('stream'), [[id, ['job', '1']]]]])
  await eventually(1, async () => (await a.xpending(key('stream'), 'workers'))[0])
  assert.equal(await b.xack(key('stream'), 'workers', id), 1)
  await eventually(0, async () => (await a.xpending(key('stream'), 'workers'))[0])
  waiting.disconnect()
})

await check('SCAN finds everything', async () => {
  const found = new Set()
  for await (const keys of b.scanStream({ match: key('k*'), count: 50 })) keys.forEach((k) => found.add(k))
  assert.equal(found.size, 500)
})

await check('messages with binary channels', async () => {
  const subscriber = b.duplicate()
  const heard = []
  subscriber.on('messageBuffer', (c, m) => heard.push(m.toString('hex')))
  await subscriber.subscribe(key('\u0000news'))
  await eventually(['00ff'], async () => {
    if (heard.length === 0) await a.publish(key('\u0000news'), Buffer.from([0, 255]))
    await new Promise((r) => setTimeout(r, 50))
    return heard.slice(0, 1)
  })
  subscriber.disconnect()
})

a.disconnect()
b.disconnect()
