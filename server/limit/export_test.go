package limit

// Buckets returns how many buckets are kept.
func (l *Limiter) Buckets() int { return len(l.rates.buckets) }
