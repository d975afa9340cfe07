// node-redis: RESP3, pipelines, transactions, scripts, blocking reads, pub/sub, client-side caching.
import { createClient } from 'redis'
import { assert, check, eventually, nodes } from './check.js'

for (const RESP of [2, 3]) {
  const [a, b] = await Promise.all(nodes.map((socket) => createClient({ RESP, socket }).connect()))
  const key = (s) => `node-redis:${RESP}:${s}`

  await check(`RESP${RESP}: every type, written here and read there`, async () => {
    await a.set(key('s'), 'value', { expiration: { type: 'EX', value: 100 } })
    await a.hSet(key('h'), { f: '1', g: '2' })
    await a.sAdd(key('set'), ['x', 'y'])
    await a.zAdd(key('z'), [{ score: 1.5, value: 'one' }, { score: 2, value: 'two' }])
    await a.rPush(key('l'), ['1', '2', '3'])
    const id = await a.xAdd(key('x'), '*', { field: 'v' })
    await a.pfAdd(key('hll'), ['p', 'q'])
    await a.geoAdd(key('geo'), { longitude: 13.4, latitude: 52.5, member: 'berlin' })
    await eventually(1, () => b.exists(key('geo')))
    assert.equal(await b.get(key('s')), 'value')
    assert.ok((await b.ttl(key('s'))) > 90)
    assert.deepEqual({ ...(await b.hGetAll(key('h'))) }, { f: '1', g: '2' })
    assert.deepEqual([...(await b.sMembers(key('set')))].sort(), ['x', 'y'])
    assert.deepEqual(await b.zRangeWithScores(key('z'), 0, -1), [{ value: 'one', score: 1.5 }, { value: 'two', score: 2 }])
    assert.deepEqual(await b.lRange(key('l'), 0, -1), ['1', '2', '3'])
    const [entry] = await b.xRange(key('x'), '-', '+')
    assert.equal(entry.id, id)
    assert.deepEqual({ ...entry.message }, { field: 'v' })
    assert.equal(await b.pfCount(key('hll')), 2)
    assert.equal(Number((await b.geoPos(key('geo'), 'berlin'))[0].latitude).toFixed(1), '52.5')
  })

  await check(`RESP${RESP}: MULTI is all or nothing, WATCH sees the other node`, async () => {
    const replies = await a.multi().incr(key('n')).get(key('n')).hIncrBy(key('h'), 'f', 4).exec()
    assert.deepEqual(replies, [1, '1', 5])
    await eventually('1', () => b.get(key('n')))
    await a.watch(key('n'))
    await b.incr(key('n'))
    await eventually('2', () => b.get(key('n')))
    const other = await createClient({ RESP, socket: nodes[0] }).connect()
    await eventually('2', () => other.get(key('n')))
    other.destroy()
    await assert.rejects(a.multi().set(key('n'), 'lost').exec(), /watch/i)
  })

  await check(`RESP${RESP}: a script's writes reach the other node together`, async () => {
    const script = `redis.call('SET', KEYS[1], ARGV[1]); redis.call('INCR', KEYS[2]); return {redis.call('GET', KEYS[1]), KEYS[2]}`
    const reply = await a.eval(script, { keys: [key('e1'), key('e2')], arguments: ['v'] })
    assert.deepEqual(reply, ['v', key('e2')])
    await eventually(['v', '1'], () => b.mGet([key('e1'), key('e2')]))
  })

  await check(`RESP${RESP}: a blocked client is woken by a push at the other node`, async () => {
    const waiting = b.duplicate()
    await waiting.connect()
    const popped = waiting.blPop(key('queue'), 20)
    await new Promise((r) => setTimeout(r, 100))
    await a.rPush(key('queue'), 'job')
    assert.deepEqual({ ...(await popped) }, { key: key('queue'), element: 'job' })
    await eventually(0, () => a.exists(key('queue')))
    waiting.destroy()
  })

  await check(`RESP${RESP}: what is published here is heard there`, async () => {
    const subscriber = b.duplicate()
    await subscriber.connect()
    const heard = []
    await subscriber.subscribe(key('news'), (m) => heard.push(m))
    await subscriber.pSubscribe(key('n*'), (m) => heard.push(m))
    await eventually(['now', 'now'], async () => {
      if (heard.length === 0) await a.publish(key('news'), 'now')
      await new Promise((r) => setTimeout(r, 50))
      return heard.slice(0, 2)
    })
    subscriber.destroy()
  })

  a.destroy()
  b.destroy()
}

await check('client-side cache: a write at the other node invalidates', async () => {
  const cached = await createClient({ RESP: 3, socket: nodes[0], clientSideCache: { ttl: 0, maxEntries: 100, evictPolicy: 'LRU' } }).connect()
  const writer = await createClient({ socket: nodes[1] }).connect()
  await writer.set('node-redis:cached', '1')
  await eventually('1', () => cached.get('node-redis:cached'))
  await writer.set('node-redis:cached', '2')
  await eventually('2', () => cached.get('node-redis:cached'))
  cached.destroy()
  writer.destroy()
})
