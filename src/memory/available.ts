/** Bytes that this process may still take: what the system has free for it, within the limit of its container. */
export const availableBytes = (): number => process.availableMemory();
