#include "base/origin.h"
